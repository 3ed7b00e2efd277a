"""What pytest loads: ``activate`` in every run, ``plugin`` in those that ask for distparity."""
