#!/bin/sh
# Runs in the build of the node image, once /opt/punch/site holds the packages: makes Python find
# them, and lays out in /var/task what generated scripts call.
set -eu

python=$(python3 -c 'import os, sys; print(os.path.realpath(sys.executable))')
"$python" -c 'import pathlib, site
pathlib.Path(site.getsitepackages()[0], "punch.pth").write_text("/opt/punch/site\n")'
"$python" -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/punch/site/punchlib

# By hand: not every base has useradd. (AWS Lambda runs functions as a user of its own anyway.)
echo 'punch:x:1000:1000::/tmp:/bin/bash' >>/etc/passwd
echo 'punch:x:1000:' >>/etc/group

# Scripts call python3.9, whatever version it is.
ln -sf "$python" /usr/local/bin/python3.9
printf '#!%s\nimport sys\nfrom punchlib.cli.main import main\nsys.exit(main())\n' "$python" \
	>/usr/local/bin/punch
chmod 755 /usr/local/bin/punch

"$python" -m punchlib.runtime.layout /var/task
"$python" -m punchlib.runtime.layout --pashlib /opt/pashlib
ln -sf /opt/pashlib /usr/local/bin/pashlib
