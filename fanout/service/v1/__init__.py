"""Our own routes under `/v1`: a module for each family, and `models` with their requests and answers.
`fanout.service.app` imports it.

`routes()` of each module gives a FastAPI router; `FAST` of a module the routes that `front` answers without FastAPI.
"""
