{#
  The bars around a run's range, per symbol and interval: so many before it and so many after it, wherever they are.

  A model that needs them makes these two temporary tables in its pre-hooks and then reads
  `run_groups` (symbol, interval) and `surroundings` (columns of features.bars, and side: 'before' or 'after').
  Reading starts with the few days that will hold the bars; only symbols that have too few there are looked for in the
  rest of the history. So the cost does not grow with the history, and a symbol with a gap of years is still right.
#}

{# Which symbols and intervals the run touches: those with bars in the range, and those with rows to be replaced. #}
{% macro make_run_groups(span) %}
    {%- set run = run_range() -%}
    create or replace temporary table run_groups as
    select distinct symbol, "interval" from {{ ref('bars') }}
    where {{ in_run_range() }} and "interval" in ({{ quoted_list(run.intervals) }})
    union
    select distinct symbol, "interval" from {{ this }}
    where {{ in_run_range(span[0], span[1]) }} and "interval" in ({{ quoted_list(run.intervals) }})
{% endmacro %}

{#
  `enough` names a column of this model that counts a row's bars of history up to the number wanted. Where the last
  row before the range says that there are fewer, no more are looked for.
#}
{% macro make_surroundings(before, after, enough=none) %}
    {%- set run = run_range() -%}
    create or replace temporary table surroundings as
    select *, '' as side from {{ ref('bars') }} where false
    {% for interval in run.intervals %}
        union all
        select *, 'before' as side from ({{ bars_beside('before', interval, before, enough) }})
        union all
        select *, 'after' as side from ({{ bars_beside('after', interval, after) }})
    {% endfor %}
{% endmacro %}

{# Never an empty list, which SQL does not have. #}
{% macro quoted_list(values) -%}
    ''{%- for value in values -%}, '{{ value }}'{%- endfor -%}
{%- endmacro %}

{#
  Calendar days that hold `bars` bars of a market that is open six and a half hours on five days a week, half as many
  again for missing bars, and a week for holidays. A wrong guess costs time, never a row.
#}
{% macro days_holding(bars, interval) -%}
    {%- set per_session = [23400 / interval_seconds(interval), 1] | max -%}
    {{- return((bars / per_session * 1.5 * 7 / 5) | round(0, 'ceil') | int + 7) -}}
{%- endmacro %}

{% macro bars_beside(side, interval, bars, enough=none) -%}
    {%- set run = run_range() -%}
    {%- set ordering = 'open_time desc' if side == 'before' else 'open_time' -%}
    {%- set days = days_holding(bars, interval) -%}
    {%- if side == 'before' -%}
        {%- set edge = modules.datetime.date.fromisoformat(run.start) - modules.datetime.timedelta(days=days) -%}
        {%- set close_by = "session >= date '" ~ edge ~ "' and session < date '" ~ run.start ~ "'" -%}
        {%- set far_off = "session < date '" ~ edge ~ "'" -%}
    {%- else -%}
        {%- set edge = modules.datetime.date.fromisoformat(run.end) + modules.datetime.timedelta(days=days) -%}
        {%- set close_by = "session >= date '" ~ run.end ~ "' and session < date '" ~ edge ~ "'" -%}
        {%- set far_off = "session >= date '" ~ edge ~ "'" -%}
    {%- endif -%}
    {%- set of_interval = "dataset = '" ~ run.dataset ~ "' and \"interval\" = '" ~ interval ~ "'" -%}
    with wanted as (
        select symbol from run_groups where "interval" = '{{ interval }}'
    ),
    near as materialized (
        select bars.* from {{ ref('bars') }} as bars semi join wanted using (symbol)
        where {{ of_interval }} and {{ close_by }}
        qualify row_number() over (partition by symbol order by {{ ordering }}) <= {{ bars }}
    ),
    {% if enough -%}
    known as (
        select symbol, arg_max({{ enough }}, open_time) as bars from {{ this }}
        where {{ of_interval }} and {{ close_by }}
        group by symbol
    ),
    {%- endif %}
    short as materialized (
        select wanted.symbol
        from wanted
        left join near on near.symbol = wanted.symbol
        {% if enough -%} left join known on known.symbol = wanted.symbol {%- endif %}
        group by wanted.symbol
        having count(near.symbol) < {{ 'coalesce(any_value(known.bars), ' ~ bars ~ ')' if enough else bars }}
    ),
    far as (
        select bars.* from {{ ref('bars') }} as bars semi join short using (symbol)
        where {{ of_interval }} and {{ far_off }}
        qualify row_number() over (partition by symbol order by {{ ordering }}) <= {{ bars }}
    )
    select * from (select * from near union all select * from far)
    qualify row_number() over (partition by symbol order by {{ ordering }}) <= {{ bars }}
{%- endmacro %}

{% macro longest_horizon() -%}
    {{- return(([0] + run_range().horizons) | max) -}}
{%- endmacro %}
