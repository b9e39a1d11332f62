{#
  What the closes and all families of features of a run are computed from: the view `memory.main.bars_to_compute`.

  The first of these models makes it, and reads it for all of them (quantlytic_assets/services/features.py); the others
  find it made. They share a turn of the dataset, so that nobody writes its bars in between. Whoever takes another turn
  drops it (quantlytic_assets/storage/dbt_writes.py).
#}

{% macro prepare_bars_to_compute() %}
    {%- set bars = ref('bars') -%}
    {%- if execute -%}
        {%- set found = run_query(
            "select 1 from duckdb_views() where database_name = 'memory' and view_name = 'bars_to_compute'"
        ) -%}
        {%- if not found.rows | length -%}
            {%- set bars_around = run_range().warmup -%}
            {%- do run_query(make_run_groups(['session', 'session'])) -%}
            {%- do make_surroundings(
                before=bars_around, after=bars_around, enough='history_bars', counted=200, known=this.incorporate(path={'identifier': 'closes'}),
                usable=true
            ) -%}
            {#- Temporary tables are this model's alone. -#}
            {%- do run_query('create or replace table memory.main.bars_around as select * from surroundings') -%}
            {%- do run_query(make_bars_to_compute(bars)) -%}
        {%- endif -%}
    {%- endif -%}
{% endmacro %}

{% macro make_bars_to_compute(bars) %}
    {#- Rows of before `listing` and `shares` existed have nothing there. A bar that may not be used has no prices. -#}
    {%- set columns -%}
        dataset, symbol, session, "interval", open_time, available_at,
        {% for name in ['open', 'high', 'low', 'close', 'volume'] %} if({{ usable_bar() }}, {{ name }}, null) as {{ name }}, {% endfor %}
        coalesce(listing, symbol) as listing, coalesce(shares, 1) as shares
    {%- endset -%}
    create view memory.main.bars_to_compute as
    select {{ columns }}, false as lookback
    from {{ bars }}
    where {{ in_run_range() }} and "interval" in ({{ quoted_list(run_range().intervals) }})
    union all
    select {{ columns }}, side = 'before' as lookback from memory.main.bars_around
{% endmacro %}
