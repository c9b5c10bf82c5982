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
{{- $all := dict "node.cidrs" .Values.cidrs "node.cni_dir" .Values.cniConfDir "log.format" "json" -}}
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

{{- /* "true" where the agents have the API server say their prefixes. */ -}}
{{- define "warren.asks" -}}
{{- if has .Values.cidrs (list "kubernetes" "calico" "cilium") -}}true{{- end -}}
{{- end -}}
