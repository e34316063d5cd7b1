"""One plain loop, datasets, recipes.

::

    recipe.py       settings: frozen models; values from TOML and ``--set key=value``
    data.py         images of a data folder, decoded once; what is held out (splits.toml)
    loop.py         the loop, on Lightning Fabric; exact resume
    checkpoint.py   safetensors and JSON; complete or absent
    export.py       from a run to the file that is shipped
    recipes/        one file per application

``python -m velatura.training train blend -o RUN`` and ``velatura train blend -o RUN`` are the same.
"""
