"""The facade in the shape of Microsoft Graph's notifications: `POST /me/notifications`, also under `/beta` and `/v1.0`.

`resource` is the posted object, `convert` decides on the item and the pushes that follow from it (pure), and `routes`
is the HTTP around them. Questions that the original leaves open or answers in two ways are decided in the decisions of
the documentation. `fanout.service.app` imports it.
"""
