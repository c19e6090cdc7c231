{{- define "crossfold.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "crossfold.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "crossfold.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "crossfold.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "crossfold.selector" -}}
app.kubernetes.io/name: {{ include "crossfold.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "crossfold.labels" -}}
{{ include "crossfold.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: crossfold
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "crossfold.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "crossfold.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "crossfold.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag }}
{{- if hasPrefix "sha256:" $tag }}
{{- printf "%s@%s" .Values.image.repository $tag }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository $tag }}
{{- end }}
{{- end }}

{{- define "crossfold.trainerImage" -}}
{{- default (printf "crossfold/trainer:%s" .Chart.AppVersion) .Values.trainerImage }}
{{- end }}

{{/* Not empty: pods report live progress. */}}
{{- define "crossfold.progress" -}}
{{- $auto := ternary "true" "false" (eq .Values.watchNamespace "") }}
{{- if eq "true" (ternary $auto (toString .Values.progress.enabled) (eq "auto" (toString .Values.progress.enabled))) }}yes{{ end }}
{{- end }}

{{- define "crossfold.progressUrl" -}}
{{- if include "crossfold.progress" . }}
{{- printf "http://%s.%s.svc:%v" (include "crossfold.fullname" .) .Release.Namespace .Values.service.port }}
{{- end }}
{{- end }}

{{- define "crossfold.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "crossfold.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* What the operator does in the namespace that it watches. It reads no Secret and no log. */}}
{{- define "crossfold.rules" -}}
- apiGroups: [crossfold.dev]
  resources: [tunes]
  verbs: [get, list, watch]
- apiGroups: [crossfold.dev]
  resources: [crossvalidations, trainruns]
  verbs: [get, list, watch, create, patch]
- apiGroups: [crossfold.dev]
  resources: [tunes/status, crossvalidations/status, trainruns/status]
  verbs: [patch]
# blockOwnerDeletion in a child's owner reference asks for this right on the owner.
- apiGroups: [crossfold.dev]
  resources: [tunes/finalizers, crossvalidations/finalizers, trainruns/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# By a headless Service the pods of a run of several nodes find each other.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create]
- apiGroups: [""]
  resources: [events]
  verbs: [get, list, create, patch]
{{- end }}
