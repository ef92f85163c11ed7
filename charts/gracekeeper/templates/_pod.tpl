{{/*
What an app's chart includes in its pod template: gracekeeper.podAnnotations, gracekeeper.terminationGracePeriodSeconds,
gracekeeper.sidecar (or gracekeeper.sidecar.ordinary) and gracekeeper.preStop.
*/}}

{{/* Entries of the pod's annotations. */}}
{{- define "gracekeeper.podAnnotations" -}}
{{- $values := include "gracekeeper.values" . | fromYaml -}}
{{- if and $values.metrics.annotations (not $values.metrics.podMonitor.enabled) -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ $values.port | quote }}
prometheus.io/path: /metrics
{{- end -}}
{{- end -}}

{{/* The number that all others must fit into. */}}
{{- define "gracekeeper.terminationGracePeriodSeconds" -}}
{{- $values := include "gracekeeper.values" . | fromYaml -}}
{{- int64 $values.terminationGracePeriodSeconds -}}
{{- end -}}

{{/* An entry of initContainers: the native sidecar, which is stopped after the app. */}}
{{- define "gracekeeper.sidecar" -}}
{{- $context := .context | default . -}}
{{- if semverCompare "<1.29.0-0" $context.Capabilities.KubeVersion.Version -}}
{{- fail (printf "native sidecars need Kubernetes 1.29, and this is %s; include gracekeeper.sidecar.ordinary under containers instead" $context.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- include "gracekeeper.container" (dict "call" . "native" true) -}}
{{- end -}}

{{/* An entry of containers: for Kubernetes before 1.29. */}}
{{- define "gracekeeper.sidecar.ordinary" -}}
{{- include "gracekeeper.container" (dict "call" . "native" false) -}}
{{- end -}}

{{/* An entry of the app container's lifecycle. */}}
{{- define "gracekeeper.preStop" -}}
{{- include "gracekeeper.hook" (dict "call" . "path" "/prestop/app") -}}
{{- end -}}

{{- define "gracekeeper.hook" -}}
{{- $values := include "gracekeeper.values" .call | fromYaml -}}
preStop:
  httpGet:
    {{- if $values.hostNetwork }}
    host: 127.0.0.1
    {{- end }}
    path: {{ .path }}
    # A number: a name is looked up among the ports of the container that has the hook.
    port: {{ int $values.port }}
    {{- with include "gracekeeper.token" .call }}
    httpHeaders:
      - name: X-Gracekeeper-Token
        value: {{ . | quote }}
    {{- end }}
{{- end -}}

{{- define "gracekeeper.container" -}}
{{- $context := .call.context | default .call -}}
{{- $values := include "gracekeeper.values" .call | fromYaml -}}
- name: gracekeeper
  image: {{ include "gracekeeper.image" .call }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  {{- if .native }}
  restartPolicy: Always
  {{- end }}
  args:
    - run
    - --grace-period={{ int64 $values.terminationGracePeriodSeconds }}s
    {{- range $values.appPorts }}
    - --app-port={{ int . }}
    {{- end }}
    {{- range $values.inflight }}
    - {{ printf "--inflight=%s" . | replace "$(" "$$(" | quote }}
    {{- end }}
    {{- range $values.requests }}
    - {{ printf "--requests=%s" . | replace "$(" "$$(" | quote }}
    {{- end }}
    {{- range $flag, $value := dict
        "app-ready" $values.appReady
        "app-shutdown" (eq $values.appShutdown "abrupt" | ternary "" $values.appShutdown)
        "drain-file" $values.drainFile
        "kube" $values.kube
        "log-format" $values.log.format
        "log-level" $values.log.level
        "max-inflight" $values.maxInflight
        "max-quiet" $values.maxQuiet
        "min-wait" $values.minWait
        "poll-interval" $values.pollInterval
        "quiet-period" $values.quietPeriod
        "read-timeout" $values.readTimeout
        "readiness" $values.readiness
        "reserve" (eq $values.appShutdown "graceful" | ternary "" $values.reserve)
        "timeout" $values.timeout
        "when-blind" $values.whenBlind
        "when-stuck" $values.whenStuck }}
    {{- if not (empty $value | and (kindIs "string" $value)) }}
    - {{ printf "--%s=%v" $flag $value | replace "$(" "$$(" | quote }}
    {{- end }}
    {{- end }}
    {{- range $values.notify }}
    - {{ printf "--notify=%s" . | replace "$(" "$$(" | quote }}
    {{- end }}
    {{- range $values.services }}
    - --service={{ . }}
    {{- end }}
    {{- if $values.hostNetwork }}
    - "--listen=127.0.0.1:{{ int $values.port }}"
    {{- else if ne (int $values.port) 9903 }}
    - "--listen=[::]:{{ int $values.port }}"
    {{- end }}
    {{- if and $values.exitWithApp (not .native) }}
    - --exit-with-app
    {{- end }}
  env:
    {{- with include "gracekeeper.token" .call }}
    - name: GRACEKEEPER_TOKEN
      value: {{ . | quote }}
    {{- end }}
    {{- range $name, $path := dict "POD_NAME" "name" "POD_NAMESPACE" "namespace" "POD_UID" "uid" }}
    - name: {{ $name }}
      valueFrom: { fieldRef: { fieldPath: metadata.{{ $path }} } }
    {{- end }}
    {{- with $values.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - name: gracekeeper
      containerPort: {{ int $values.port }}
  readinessProbe:
    httpGet: { path: /readyz, port: {{ int $values.port }}{{ if $values.hostNetwork }}, host: 127.0.0.1{{ end }} }
    periodSeconds: 2
  lifecycle:
    {{- include "gracekeeper.hook" (dict "call" .call "path" "/prestop/self") | nindent 4 }}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    capabilities: { drop: [ALL] }
    seccompProfile: { type: RuntimeDefault }
  {{- with $values.volumeMounts }}
  volumeMounts:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "gracekeeper.image" -}}
{{- $values := include "gracekeeper.values" . | fromYaml -}}
{{- $image := $values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default (include "gracekeeper.version" .)) -}}
{{- end -}}
{{- end -}}

{{/* Our appVersion, also where .Chart is the app's. */}}
{{- define "gracekeeper.version" -}}
{{- $context := .context | default . -}}
{{- ($context.Subcharts.gracekeeper | default $context).Chart.AppVersion -}}
{{- end -}}
