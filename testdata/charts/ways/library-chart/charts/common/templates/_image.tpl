{{- define "common.image" -}}
{{ printf "%s/%s:%s" .registry .repository .tag | quote }}
{{- end -}}
