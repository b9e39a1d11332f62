{# What the indicators model reads, beside `surroundings`: see macros/surroundings.sql. #}

{% macro make_bars_to_compute() %}
    {#- Rows of before `listing` and `shares` existed have nothing there. A bar that may not be used has no prices. -#}
    {%- set columns -%}
        dataset, symbol, session, "interval", open_time, available_at,
        {% for name in ['high', 'low', 'close'] %} if({{ usable_bar() }}, {{ name }}, null) as {{ name }}, {% endfor %}
        coalesce(listing, symbol) as listing, coalesce(shares, 1) as shares
    {%- endset -%}
    create or replace temporary view bars_to_compute as
    select {{ columns }}, false as lookback
    from {{ ref('bars') }}
    where {{ in_run_range() }} and "interval" in ({{ quoted_list(run_range().intervals) }})
    union all
    select {{ columns }}, side = 'before' as lookback from surroundings
{% endmacro %}

{# The rows from which the recursions go on: of each symbol and interval the last usable bar before the range. #}
{% macro make_last_indicators() %}
    {%- set run = run_range() -%}
    {%- set oldest = run.start -%}
    {%- if execute -%}
        {%- set oldest = run_query(
            "select coalesce(min(session), date '" ~ run.start ~ "') from ("
            ~ "select max(session) as session from surroundings where side = 'before' group by symbol, \"interval\")"
        ).columns[0].values()[0] -%}
    {%- endif -%}
    create or replace temporary table last_indicators as
    select indicators.*
    from {{ this }} as indicators
    semi join (
        select symbol, "interval", max(open_time) as open_time from surroundings where side = 'before' group by all
    ) using (symbol, "interval", open_time)
    where dataset = '{{ run.dataset }}' and session >= date '{{ oldest }}' and session < date '{{ run.start }}'
{% endmacro %}
