{# What the indicators model reads, beside `surroundings`: see macros/surroundings.sql. #}

{% macro make_bars_to_compute() %}
    {#- Rows of before `listing` and `shares` existed have nothing there. A bar that may not be used has no prices. -#}
    {%- set columns -%}
        dataset, symbol, session, "interval", open_time, available_at,
        {% for name in ['open', 'high', 'low', 'close', 'volume'] %} if({{ usable_bar() }}, {{ name }}, null) as {{ name }}, {% endfor %}
        coalesce(listing, symbol) as listing, coalesce(shares, 1) as shares
    {%- endset -%}
    create or replace temporary view bars_to_compute as
    select {{ columns }}, false as lookback
    from {{ ref('bars') }}
    where {{ in_run_range() }} and "interval" in ({{ quoted_list(run_range().intervals) }})
    union all
    select {{ columns }}, side = 'before' as lookback from surroundings
{% endmacro %}
