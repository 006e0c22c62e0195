"""What each row measures, one module per family. `ROWS` of each is its part of the table."""
