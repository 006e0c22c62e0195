"""The facade in the shape of Microsoft Graph's notifications: `POST /me/notifications`, also under `/beta` and `/v1.0`.

`resource` is what is posted, `convert` decides what is stored and pushed because of it (pure), and `routes` is the HTTP around them.
What is undocumented or contradictory in the original is decided in ARCHITECTURE.md. `fanout.service.app` imports it.
"""
