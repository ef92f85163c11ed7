{{/* The pod template, for Deployment and Job. The four lines of gracekeeper are the includes. */}}
{{- define "app.pod" -}}
metadata:
  labels:
    app.kubernetes.io/name: {{ .Release.Name }}
  annotations:
    {{- include "gracekeeper.podAnnotations" . | nindent 4 }}
spec:
  {{- if .Values.job }}
  restartPolicy: Never
  {{- end }}
  serviceAccountName: {{ include "gracekeeper.serviceAccountName" . }}
  terminationGracePeriodSeconds: {{ include "gracekeeper.terminationGracePeriodSeconds" . }}
  initContainers:
    {{- include "gracekeeper.sidecar" . | nindent 4 }}
  containers:
    - name: app
      image: {{ .Values.image }}
      imagePullPolicy: {{ .Values.imagePullPolicy }}
      {{- with .Values.command }}
      command:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.args }}
      args:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.env }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: app
          containerPort: {{ .Values.port }}
      {{- with .Values.readinessProbe }}
      readinessProbe:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      lifecycle:
        {{- include "gracekeeper.preStop" . | nindent 8 }}
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      {{- if or .Values.files .Values.sharedFolder }}
      volumeMounts:
        {{- if .Values.sharedFolder }}
        - name: shared
          mountPath: {{ .Values.sharedFolder }}
        {{- end }}
        {{- range $path, $_ := .Values.files }}
        - name: files
          mountPath: {{ $path }}
          subPath: {{ base $path }}
        {{- end }}
      {{- end }}
  {{- if or .Values.files .Values.sharedFolder }}
  volumes:
    {{- if .Values.sharedFolder }}
    - name: shared
      emptyDir: {}
    {{- end }}
    {{- if .Values.files }}
    - name: files
      configMap:
        name: {{ .Release.Name }}
    {{- end }}
  {{- end }}
{{- end -}}
