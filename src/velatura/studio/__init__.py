"""The studio: what the command line can do, in a local web page.

The page is one client of a small interface that scripts may use as well; ``/docs`` shows it in full. Everything that
is answered is JSON unless it is an image; everything that is refused is ``{"error": "one line"}``.

=======  =========================================  ================================================================
GET      ``/api/applications``                      applications: images, options (JSON schema), models
GET      ``/api/models``                            cards of all models
GET      ``/api/samples``                           names of free photographs
POST     ``/api/samples/{name}``                    put one into the store
POST     ``/api/images``                            upload a file; ``?mask_for=ID`` brings a mask to an image's size
GET      ``/api/images/{id}``                       what is known of an image
GET      ``/api/images/{id}/preview``               the image for a screen, at most ``side`` pixels
GET      ``/api/files/{id}``                        the file itself; ``?format=webp&quality=90`` converts it
POST     ``/api/images/{id}/opacity``               give an image's opacity as a mask
POST     ``/api/images/{id}/cutout``                cut out by a mask, turned by an angle
DELETE   ``/api/images/{id}``                       forget it
POST     ``/api/jobs``                              queue work; 429 with Retry-After where the queue is full
GET      ``/api/jobs``, ``/api/jobs/{id}``          work and its results
POST     ``/api/jobs/{id}/cancel``                  cancel what waits or runs
DELETE   ``/api/jobs/{id}``                         forget what is finished, with its results
GET      ``/api/events``                            server-sent events: every job as it changes
POST     ``/api/archives``                          name a zip of images
GET      ``/api/archives/{id}``                     the zip, written while it is sent
=======  =========================================  ================================================================

================  ===================================================================================================
``settings.py``   what is allowed: sizes, quota, addresses
``guard.py``      who is let in: Host, Origin, token, size of bodies, headers
``store.py``      temporary files by unguessable ids, with a quota
``pictures.py``   previews, masks brought to size, pieces cut out, conversion
``zips.py``       zips that are written while they are sent
``forms.py``      applications as forms; what comes back from a form, checked
``commands.py``   the command line that repeats a job
``work.py``       one job as the worker does it
``worker.py``     the worker process: warm models, progress, cancelling
``jobs.py``       the queue in front of the worker, and who listens to it
``samples.py``    free photographs to begin with
``app.py``        the interface and the page
``server.py``     uvicorn around it
================  ===================================================================================================
"""

__all__: list[str] = []
