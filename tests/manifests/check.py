"""Reads manifests from standard input, checks each against the schemas of the Kubernetes versions that are its arguments,
and prints them all as JSON. A kind that has no schema there, such as those of other projects, is listed apart."""

import json
import sys

import kubernetes_validate
import yaml

documents = [document for document in yaml.safe_load_all(sys.stdin) if document is not None]
faults, unknown = [], set()
for document in documents:
    name = f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"
    for version in sys.argv[1:]:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            unknown.add(document.get("kind"))
        except kubernetes_validate.ValidationError as error:
            faults.append(f"{name}, Kubernetes {version}, at {'.'.join(map(str, error.path))}: {error.message}")
json.dump({"documents": documents, "faults": faults, "unknown": sorted(unknown)}, sys.stdout)
