{#
  What a run works on. It comes from the environment and is read only while a model runs, never while the project is
  parsed: `--vars` that change from run to run make dbt parse everything again each time.
#}

{#
  dataset    QUANTLYTIC_RUN_DATASET      name of the dataset
  native     QUANTLYTIC_RUN_INTERVAL     its interval, such as 1m
  intervals  QUANTLYTIC_RUN_INTERVALS    feature intervals, comma-separated, such as 5m,1h; may be empty
  horizons   QUANTLYTIC_RUN_HORIZONS     label horizons in bars, comma-separated, such as 1,5; may be empty
  start end  QUANTLYTIC_RUN_START, _END  ISO dates of sessions, half-open
  delay      QUANTLYTIC_RUN_DELAY        seconds from a bar's end to when it is available
  incomplete QUANTLYTIC_RUN_INCOMPLETE   drop or keep: whether bars that are not complete may be used
  warmup     QUANTLYTIC_RUN_WARMUP       bars before a bar that decide its features
  columns    QUANTLYTIC_RUN_FEATURES     JSON; its `columns` are by family: name and description of each feature's
#}
{% macro run_range() %}
    {%- if not execute or flags.WHICH not in ('build', 'run', 'test') -%}
        {#- Parsing and documenting need a range that is well-formed, not a real one. -#}
        {{- return({'dataset': '', 'native': '1m', 'intervals': ['1h'], 'horizons': [1],
                    'start': '2000-01-01', 'end': '2000-01-01', 'delay': 0, 'incomplete': 'drop', 'warmup': 0, 'columns': {}}) -}}
    {%- endif -%}
    {%- set intervals = env_var('QUANTLYTIC_RUN_INTERVALS').split(',') | select | list -%}
    {%- set horizons = env_var('QUANTLYTIC_RUN_HORIZONS').split(',') | select | map('int') | list -%}
    {{- return({
        'dataset': env_var('QUANTLYTIC_RUN_DATASET') | replace("'", "''"),
        'native': env_var('QUANTLYTIC_RUN_INTERVAL'),
        'intervals': intervals,
        'horizons': horizons,
        'start': modules.datetime.date.fromisoformat(env_var('QUANTLYTIC_RUN_START')).isoformat(),
        'end': modules.datetime.date.fromisoformat(env_var('QUANTLYTIC_RUN_END')).isoformat(),
        'delay': env_var('QUANTLYTIC_RUN_DELAY') | float,
        'incomplete': env_var('QUANTLYTIC_RUN_INCOMPLETE'),
        'warmup': env_var('QUANTLYTIC_RUN_WARMUP') | int,
        'columns': fromjson(env_var('QUANTLYTIC_RUN_FEATURES'))['columns'],
    }) -}}
{% endmacro %}

{#
  SQL condition: rows of the run's dataset whose stretch of sessions, from `first` to `last`, touches the range.
  With one column for both: rows of the range's sessions.
#}
{% macro in_run_range(first='session', last='session') %}
    {%- set run = run_range() -%}
    dataset = '{{ run.dataset }}' and {{ first }} < date '{{ run.end }}' and {{ last }} >= date '{{ run.start }}'
{%- endmacro %}

{# Whether the run's dataset has splits or renames: most have none, and its bars need not be looked at for them. #}
{% macro run_has_split_factors() %}
    {#- Named before anything is left out: dbt notes while it parses what a model reads. -#}
    {%- set counts = source('clean', 'split_factors') -%}
    {%- if not execute or flags.WHICH not in ('build', 'run', 'test') -%}
        {{- return(false) -}}
    {%- endif -%}
    {%- set found = run_query("select 1 from " ~ counts ~ " where dataset = '" ~ run_range().dataset ~ "' limit 1") -%}
    {{- return(found.rows | length > 0) -}}
{% endmacro %}

{% macro interval_seconds(interval) %}
    {%- set seconds = {'1m': 60, '5m': 300, '15m': 900, '1h': 3600, '1d': 86400} -%}
    {%- if interval not in seconds -%}
        {%- set known = seconds.keys() | join(' ') -%}
        {%- do exceptions.raise_compiler_error(interval ~ ' is no interval: take one of ' ~ known) -%}
    {%- endif -%}
    {{- return(seconds[interval]) -}}
{% endmacro %}
