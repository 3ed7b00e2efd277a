"""The pytest plugin: ``activate`` is loaded in every run, ``plugin`` in runs that use distparity."""
