{#
  The bars around a run's range, per symbol and interval: so many before it and so many after it, wherever they are.

  A model that needs them makes two temporary tables in its pre-hooks and then reads
  `run_groups` (symbol, interval) and `surroundings` (columns of features.bars, and side: 'before' or 'after').
  The few days that should hold the bars are read first; only a symbol that has too few there is looked for in the
  rest of the history. So the cost does not grow with the history, and a symbol with a gap of years is still right.
#}

{# Which symbols and intervals the run touches: those with bars in the range, and those with rows to be replaced. #}
{% macro make_run_groups(span) %}
    {%- set intervals = quoted_list(run_range().intervals) -%}
    create or replace temporary table run_groups as
    select distinct symbol, "interval" from {{ ref('bars') }}
    where {{ in_run_range() }} and "interval" in ({{ intervals }})
    union
    select distinct symbol, "interval" from {{ this }}
    where {{ in_run_range(span[0], span[1]) }} and "interval" in ({{ intervals }})
{% endmacro %}

{#
  `enough` names a column of the table `known` that counts a row's bars of history up to `counted`. Where the last row
  before the range has fewer, that is all there are, and no more are looked for.
  `delayed`: as many more bars each side as can open between a bar's end and when it is available.
  `usable`: only bars that may be used are counted and taken (usable_bars.sql).
#}
{% macro make_surroundings(before, after, enough=none, counted=none, known=none, delayed=false, usable=false) %}
    {%- set bars = ref('bars') -%}
    {%- if execute -%}
        {%- set wanted = {'before': before, 'after': after} -%}
        {%- set seconds = session_seconds() -%}
        {%- do run_query(
            "create or replace temporary table surroundings as select *, '' as side from " ~ bars ~ " limit 0"
        ) -%}
        {%- do run_query(
            'create or replace temporary table short_groups '
            ~ '(side varchar, "interval" varchar, symbol varchar, missing bigint)'
        ) -%}
        {%- for interval in run_range().intervals -%}
            {#- Bars are shorter than their interval where a session or its half ends, hence twice as many. -#}
            {%- set later = (run_range().delay / interval_seconds(interval)) | round(0, 'ceil') | int * 2 -%}
            {%- for side in wanted -%}
                {%- set count = wanted[side] + (later if delayed else 0) -%}
                {%- set edge = near_edge(side, interval, count, seconds) -%}
                {%- do run_query(near_bars(side, interval, count, edge, usable)) -%}
                {%- do run_query(note_short_groups(side, interval, count, edge, enough if side == 'before', counted, known)) -%}
                {%- set short = run_query('select count(*) from ' ~ short_groups(side, interval)) -%}
                {%- if short.columns[0].values()[0] -%}
                    {%- do run_query(far_bars(side, interval, edge, usable)) -%}
                {%- endif -%}
            {%- endfor -%}
        {%- endfor -%}
    {%- endif -%}
{% endmacro %}

{% macro short_groups(side, interval) -%}
    (select symbol, missing from short_groups where side = '{{ side }}' and "interval" = '{{ interval }}')
{%- endmacro %}

{# The list is never empty: SQL has no empty list. #}
{% macro quoted_list(values) -%}
    ''{%- for value in values -%}, '{{ value }}'{%- endfor -%}
{%- endmacro %}

{% macro longest_horizon() -%}
    {{- return(([0] + run_range().horizons) | max) -}}
{%- endmacro %}

{# How long the range's shortest session is; six and a half hours where there is none. #}
{% macro session_seconds() %}
    {{- return(run_query(
        "select coalesce(min(epoch(close_time) - epoch(open_time)), 23400) from " ~ source('clean', 'sessions')
        ~ " where " ~ in_run_range()
    ).columns[0].values()[0] | float) -}}
{% endmacro %}

{#
  The first or last session of the days that should hold `bars` bars: a week has five sessions, a fifth of the bars may
  be missing, and markets close for four days on end. A wrong guess costs time, never a row.
#}
{% macro near_edge(side, interval, bars, seconds) %}
    {%- set per_session = [seconds / interval_seconds(interval), 1] | max -%}
    {%- set days = modules.datetime.timedelta(days=(bars / per_session * 1.2 * 7 / 5) | round(0, 'ceil') | int + 4) -%}
    {%- if side == 'before' -%}
        {{- return(modules.datetime.date.fromisoformat(run_range().start) - days) -}}
    {%- else -%}
        {{- return(modules.datetime.date.fromisoformat(run_range().end) + days) -}}
    {%- endif -%}
{% endmacro %}

{% macro near_sessions(side, edge) -%}
    {%- if side == 'before' -%} session >= date '{{ edge }}' and session < date '{{ run_range().start }}'
    {%- else -%} session >= date '{{ run_range().end }}' and session < date '{{ edge }}' {%- endif -%}
{%- endmacro %}

{% macro of_interval(interval) -%}
    dataset = '{{ run_range().dataset }}' and "interval" = '{{ interval }}'
{%- endmacro %}

{% macro outwards(side) -%}
    over (partition by symbol order by open_time {{ 'desc' if side == 'before' }})
{%- endmacro %}

{% macro near_bars(side, interval, bars, edge, usable) %}
    insert into surroundings
    select bars.*, '{{ side }}'
    from {{ ref('bars') }} as bars
    semi join (select symbol from run_groups where "interval" = '{{ interval }}') as wanted using (symbol)
    where {{ of_interval(interval) }} and {{ near_sessions(side, edge) }}{{ ' and ' ~ usable_bar() if usable }}
    qualify row_number() {{ outwards(side) }} <= {{ bars }}
{% endmacro %}

{% macro note_short_groups(side, interval, bars, edge, enough, counted, table) %}
    insert into short_groups
    select '{{ side }}', '{{ interval }}', symbol, wanted - found
    from (
        select
            run_groups.symbol,
            {{ 'coalesce(any_value(if(known.bars < ' ~ counted ~ ', known.bars, null)), ' ~ bars ~ ')' if enough else bars }}
                as wanted,
            count(near.open_time) as found
        from run_groups
        left join surroundings as near
            on near.symbol = run_groups.symbol and near."interval" = '{{ interval }}' and near.side = '{{ side }}'
        {% if enough -%}
        left join (
            select symbol, arg_max({{ enough }}, open_time) as bars from {{ table }}
            where {{ of_interval(interval) }} and {{ near_sessions(side, edge) }}
            group by symbol
        ) as known on known.symbol = run_groups.symbol
        {%- endif %}
        where run_groups."interval" = '{{ interval }}'
        group by run_groups.symbol
    )
    where found < wanted
{% endmacro %}

{% macro far_bars(side, interval, edge, usable) %}
    insert into surroundings
    select bars.*, '{{ side }}'
    from {{ ref('bars') }} as bars
    join {{ short_groups(side, interval) }} as short using (symbol)
    where {{ of_interval(interval) }} and session {{ '<' if side == 'before' else '>=' }} date '{{ edge }}'
        {{ 'and ' ~ usable_bar() if usable }}
    qualify row_number() {{ outwards(side) }} <= short.missing
{% endmacro %}
