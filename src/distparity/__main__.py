from distparity.cli import main

raise SystemExit(main())
