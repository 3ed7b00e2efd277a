"""The pytest plugin: ``activate`` is loaded in every run, ``plugin`` in runs that use distparity."""

#: Settings of a project for ``distparity.cases``: the kind of device, and the folder for results.
DEVICE, REPORTS = "distparity_device", "distparity_reports"
