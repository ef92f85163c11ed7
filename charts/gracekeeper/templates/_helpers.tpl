{{/* Names, values and the token. What an app's chart includes is in _pod.tpl. */}}

{{/*
Helm's context, wherever we are called from: an app's chart with several workloads passes
(dict "context" . "values" (what differs for this one)) instead.
*/}}
{{- define "gracekeeper.fullname" -}}
{{- $release := (.context | default .).Release.Name -}}
{{- if contains "gracekeeper" $release -}}
{{- $release | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-gracekeeper" ($release | trunc 51 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "gracekeeper.labels" -}}
app.kubernetes.io/name: gracekeeper
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "gracekeeper.serviceAccountName" -}}
{{- $values := include "gracekeeper.values" . | fromYaml -}}
{{- $own := ternary (include "gracekeeper.fullname" .) "default" $values.serviceAccount.create -}}
{{- $values.serviceAccount.name | default $own -}}
{{- end -}}

{{/*
Our values as YAML: .Values in our own chart, .Values.gracekeeper in a chart that depends on ours. Checked here for what
a schema cannot say.
*/}}
{{- define "gracekeeper.values" -}}
{{- $context := .context | default . -}}
{{- $values := deepCopy ($context.Values.gracekeeper | default $context.Values) -}}
{{- if not (hasKey $values "terminationGracePeriodSeconds") -}}
{{- fail "the values of gracekeeper are not there; list it in this chart's dependencies by the name gracekeeper, without an alias" -}}
{{- end -}}
{{- if .context -}}
{{- $values = mergeOverwrite $values (deepCopy (.values | default dict)) -}}
{{- end -}}
{{- if eq (toString $values.kube) "false" -}}
{{- $_ := set $values "kube" "off" -}}
{{- end -}}
{{- $grace := mul 1000 (int64 $values.terminationGracePeriodSeconds) -}}
{{- $minWait := include "gracekeeper.milliseconds" $values.minWait | int64 -}}
{{- $reserve := include "gracekeeper.milliseconds" (eq $values.appShutdown "graceful" | ternary "0s" $values.reserve) | int64 -}}
{{- if ge (add $minWait $reserve) $grace -}}
{{- fail (printf "minWait %s and reserve %s leave no time for requests in terminationGracePeriodSeconds %d; raise it, or lower one of them" $values.minWait $values.reserve (int64 $values.terminationGracePeriodSeconds)) -}}
{{- end -}}
{{- if $values.timeout -}}
{{- if ge $minWait (include "gracekeeper.milliseconds" $values.timeout | int64) -}}
{{- fail (printf "timeout %s is not longer than minWait %s, so no drain could end before it; raise it, or leave it out" $values.timeout $values.minWait) -}}
{{- end -}}
{{- end -}}
{{- if and $values.services (eq $values.kube "off") -}}
{{- fail (printf "services %s: their EndpointSlices are in the Kubernetes API, but kube is off; write kube: auto" ($values.services | join ", ")) -}}
{{- end -}}
{{- if and $values.drainFile (not $values.volumeMounts) -}}
{{- fail (printf "drainFile %s: the sidecar's root is read-only; name in volumeMounts a volume that the app mounts too" $values.drainFile) -}}
{{- end -}}
{{- if not (or $values.appPorts $values.inflight) -}}
{{- fail "appPorts and inflight are both empty, so there is nothing to watch; give at least the app's port in appPorts" -}}
{{- end -}}
{{- toYaml $values -}}
{{- end -}}

{{/* The milliseconds of a duration such as 1m30s. */}}
{{- define "gracekeeper.milliseconds" -}}
{{- $total := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $of := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 -}}
{{- $total = add $total (mul (get $of $unit) (regexFind "[0-9]+" . | int64)) -}}
{{- end -}}
{{- $total -}}
{{- end -}}

{{/*
The token, or nothing. It is asked for by the Secret, the sidecar and the hooks, in whatever order, of our chart and of
the app's: the first to ask leaves it in the values, which are the same for all of them in one rendering.

Helm tells no template whether a cluster is there. But the user who installs may list Secrets, since Helm does, and a list
comes back even where it is empty. Without a cluster nothing comes back, and a token made up there would be another one
with each rendering.
*/}}
{{- define "gracekeeper.token" -}}
{{- $context := .context | default . -}}
{{- $values := $context.Values.gracekeeper | default $context.Values -}}
{{- if and $values.token.enabled (not $values.token.value) (not (hasKey $values "_token")) -}}
{{- $namespace := $context.Release.Namespace -}}
{{- $kept := lookup "v1" "Secret" $namespace (include "gracekeeper.fullname" .) -}}
{{- $token := "" -}}
{{- if $kept -}}
{{- $token = $kept.data.token | b64dec -}}
{{- else if lookup "v1" "Secret" $namespace "" -}}
{{- $token = randAlphaNum 32 -}}
{{- end -}}
{{- $_ := set $values "_token" $token -}}
{{- end -}}
{{- if $values.token.enabled -}}
{{- $values.token.value | default $values._token -}}
{{- end -}}
{{- end -}}
