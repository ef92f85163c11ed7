{{/*
Injection by the API server: what the policies of injection.yaml are made of. Names, kinds and patterns of the settings are in
files/injection.json, which `gracekeeper inject` reads too.
*/}}

{{/* The settings where neither the pod nor its namespace says otherwise, as JSON: every name has a value, empty if unset. */}}
{{- define "gracekeeper.injection.defaults" -}}
{{- $table := .Files.Get "files/injection.json" | fromJson -}}
{{- $all := dict -}}
{{- range concat $table.flags $table.pod $table.settings -}}
{{- $_ := set $all .name "" -}}
{{- end -}}
{{- $injection := .Values.injection -}}
{{- $limits := .Values.resources.limits | default dict -}}
{{- $requests := .Values.resources.requests | default dict -}}
{{- $security := $injection.securityContext -}}
{{- $own := dict
    "image" (include "gracekeeper.image" .)
    "pull-policy" .Values.image.pullPolicy
    "image-pull-secret" $injection.imagePullSecret
    "token" (include "gracekeeper.token" .)
    "mode" $injection.mode
    "run-as-user" (include "gracekeeper.injection.text" $security.runAsUser)
    "run-as-group" (include "gracekeeper.injection.text" $security.runAsGroup)
    "seccomp-profile" $security.seccompProfile
    "requests-cpu" (include "gracekeeper.injection.text" ($requests.cpu | default "5m"))
    "requests-memory" (include "gracekeeper.injection.text" ($requests.memory | default "8Mi"))
    "limits-cpu" (include "gracekeeper.injection.text" ($limits.cpu | default "100m"))
    "limits-memory" (include "gracekeeper.injection.text" ($limits.memory | default "32Mi"))
    "service-accounts" ($injection.serviceAccounts | join ",") -}}
{{- $all = mergeOverwrite $all $own -}}
{{- range $name, $value := $injection.defaults -}}
{{- $text := include "gracekeeper.injection.text" $value -}}
{{- $kind := "" -}}
{{- $names := list -}}
{{- range concat $table.flags $table.pod -}}
{{- $names = append $names .name -}}
{{- if eq .name $name -}}{{- $kind = .kind -}}{{- end -}}
{{- end -}}
{{- if not $kind -}}
{{- fail (printf "injection.defaults.%s is no setting; those that are: %s" $name ($names | join ", ")) -}}
{{- end -}}
{{- if not (regexMatch (index $table.kinds $kind).pattern $text) -}}
{{- fail (printf "injection.defaults.%s %q: %s" $name $text (index $table.kinds $kind).write) -}}
{{- end -}}
{{- $_ := set $all $name $text -}}
{{- end -}}
{{- toRawJson $all -}}
{{- end -}}

{{/* A value as text: a number without a fraction that YAML made of it, and nothing where there is none. */}}
{{- define "gracekeeper.injection.text" -}}
{{- if not (kindIs "invalid" .) -}}
{{- if kindIs "float64" . -}}{{- if eq (floor .) . -}}{{- int64 . -}}{{- else -}}{{- . -}}{{- end -}}
{{- else -}}{{- . -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* A pattern for each setting: a JSON object, which is an expression of CEL too. Call it with the root and the lists. */}}
{{- define "gracekeeper.injection.patterns" -}}
{{- $table := .root.Files.Get "files/injection.json" | fromJson -}}
{{- $patterns := dict -}}
{{- range $list := .lists -}}
{{- range index $table $list -}}
{{- $_ := set $patterns .name (index $table.kinds .kind).pattern -}}
{{- end -}}
{{- end -}}
{{- toRawJson $patterns -}}
{{- end -}}

{{/* The flags that the chart's values set, as a list of JSON. */}}
{{- define "gracekeeper.injection.setFlags" -}}
{{- $table := .Files.Get "files/injection.json" | fromJson -}}
{{- $settings := include "gracekeeper.injection.defaults" . | fromJson -}}
{{- $set := list -}}
{{- range $table.flags -}}
{{- if get $settings .name -}}{{- $set = append $set .name -}}{{- end -}}
{{- end -}}
{{- toRawJson $set -}}
{{- end -}}

{{/* The value of the label by which a pod by itself is selected. */}}
{{- define "gracekeeper.injection.podLabel" -}}
{{- if eq .Values.injection.label "enabled" -}}true{{- else -}}{{- .Values.injection.label -}}{{- end -}}
{{- end -}}
