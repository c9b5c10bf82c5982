{{- define "warren.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "warren.selector" -}}
app.kubernetes.io/name: warren
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end -}}

{{- define "warren.labels" -}}
app.kubernetes.io/name: warren
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "warren.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* A value as the agent's environment takes it: lists with commas, whole numbers without exponent. */ -}}
{{- define "warren.literal" -}}
{{- if kindIs "slice" . -}}
{{- range $index, $item := . }}{{ if $index }},{{ end }}{{ include "warren.literal" $item }}{{ end -}}
{{- else if kindIs "float64" . -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end -}}

{{- /* What the values say, by the agent's own dotted names; `settings` wins. */ -}}
{{- define "warren.settings" -}}
{{- $all := dict "node.cidrs" (include "warren.cidrs" .) "node.cni_dir" .Values.cniConfDir "log.format" "json" -}}
{{- $_ := set $all "overlay.mode" .Values.overlay.mode -}}
{{- $_ := set $all "overlay.enforcement" .Values.overlay.enforcement -}}
{{- if .Values.overlay.networks -}}
{{- $_ := set $all "overlay.networks" .Values.overlay.networks -}}
{{- end -}}
{{- if or .Values.cni.gate .Values.cni.install -}}
{{- $_ := set $all "cni.gate" .Values.cni.gate -}}
{{- $_ := set $all "cni.install" .Values.cni.install -}}
{{- $_ := set $all "cni.bin_dir" .Values.cni.binDir -}}
{{- end -}}
{{- if eq .Values.registry "etcd" -}}
{{- $_ := set $all "etcd.endpoints" .Values.etcd.endpoints -}}
{{- $_ := set $all "etcd.cluster" .Values.etcd.cluster -}}
{{- if .Values.etcd.secretName -}}
{{- $_ := set $all "etcd.ca_file" "/etc/warren-etcd/ca.crt" -}}
{{- $_ := set $all "etcd.cert_file" "/etc/warren-etcd/tls.crt" -}}
{{- $_ := set $all "etcd.key_file" "/etc/warren-etcd/tls.key" -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.registry "kubernetes" -}}
{{- $_ := set $all "kubernetes.enabled" true -}}
{{- end -}}
{{- if and .Values.k8sServiceHost (include "warren.asks" .) -}}
{{- $host := ternary (printf "[%s]" .Values.k8sServiceHost) .Values.k8sServiceHost (contains ":" .Values.k8sServiceHost) -}}
{{- $_ := set $all "kubernetes.enabled" (eq .Values.registry "kubernetes") -}}
{{- $_ := set $all "kubernetes.server" (printf "https://%s:%d" $host (int64 .Values.k8sServicePort)) -}}
{{- end -}}
{{- if .Values.monitoring.enabled -}}
{{- $_ := set $all "metrics.listen" (ternary "[$(HOST_IP)]:9586" "$(HOST_IP):9586" .Values.monitoring.ipv6) -}}
{{- end -}}
{{- range $key, $value := .Values.settings -}}
{{- $_ := set $all $key $value -}}
{{- end -}}
{{- range $key := keys $all | sortAlpha }}
- name: WARREN_{{ $key | replace "." "_" | upper }}
  value: {{ include "warren.literal" (get $all $key) | quote }}
{{- end -}}
{{- end -}}

{{- /* Root without any capability: the files on the host, and the mounted key, are root's. */ -}}
{{- define "warren.confined" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsUser: 0
runAsGroup: 0
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* Where a node's prefixes come from. */ -}}
{{- define "warren.cidrs" -}}
{{- .Values.cidrs | default (ternary "kubernetes" "auto" (eq .Values.registry "kubernetes")) -}}
{{- end -}}

{{- /* "true" where the agents have the API server say their prefixes. */ -}}
{{- define "warren.sourced" -}}
{{- if has (include "warren.cidrs" .) (list "kubernetes" "calico" "cilium") -}}true{{- end -}}
{{- end -}}

{{- /* "true" where the agents ask the API server for anything. */ -}}
{{- define "warren.asks" -}}
{{- if or (eq .Values.registry "kubernetes") (include "warren.sourced" .) -}}true{{- end -}}
{{- end -}}

{{- /* What of a record is compared with the Node: "prefixes" and all else, "addresses", "nothing". */ -}}
{{- define "warren.compare" -}}
{{- .Values.kubernetes.compare | default (ternary "addresses" "prefixes" (has (include "warren.cidrs" .) (list "calico" "cilium"))) -}}
{{- end -}}

{{- /* An object of deploy/kubernetes/base as one of this release: with its labels, for its service account. */ -}}
{{- define "warren.object" -}}
{{- $root := index . 0 -}}
{{- $object := index . 1 -}}
{{- $_ := set $object.metadata "labels" (include "warren.labels" $root | fromYaml) -}}
{{- range $subject := $object.subjects -}}
{{- if eq $subject.kind "ServiceAccount" -}}
{{- $_ := set $subject "name" (include "warren.name" $root) -}}
{{- $_ := set $subject "namespace" $root.Release.Namespace -}}
{{- end -}}
{{- end -}}
{{- range $condition := ($object.spec).matchConditions -}}
{{- $account := printf "'system:serviceaccount:%s:%s'" $root.Release.Namespace (include "warren.name" $root) -}}
{{- $_ := set $condition "expression" (replace "'system:serviceaccount:warren-system:warren'" $account $condition.expression) -}}
{{- end -}}
{{- if and (eq $object.kind "ValidatingAdmissionPolicy") (eq $object.metadata.name "warren-node-facts") (eq (include "warren.compare" $root) "addresses") -}}
{{- /* As components/cidrs-calico and cidrs-cilium: all rules but those that look at the Node's podCIDRs, and no single addresses. */ -}}
{{- $single := "variables.isOther || !variables.isBlock || !object.spec.cidr.endsWith(object.spec.cidr.contains(':') ? '/128' : '/32')" -}}
{{- $says := "object.spec.cidr + ' is a single address, which an administrator alone grants'" -}}
{{- $kept := list (dict "expression" $single "messageExpression" $says) -}}
{{- range $rule := $object.spec.validations -}}
{{- if not (contains "variables.given" $rule.expression) -}}
{{- $kept = append $kept $rule -}}
{{- end -}}
{{- end -}}
{{- $_ := set $object.spec "validations" $kept -}}
{{- end }}
---
{{ toYaml $object }}
{{- end -}}
