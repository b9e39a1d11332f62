{#
  A view of the lake, made anew by each run in one statement: readers see the old definition or the new one. dbt's own
  view materialization goes by a second name and a rename. Columns of a DuckLake view can't have comments.
#}
{% materialization lake_view, adapter='duckdb' %}
    {%- set target = this.incorporate(type='view') -%}
    {{ run_hooks(pre_hooks) }}
    {%- call statement('main') -%}
        create or replace view {{ target }} as {{ sql }}
    {%- endcall -%}
    {%- do persist_docs(target, model, for_columns=false) -%}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target]}) }}
{% endmaterialization %}
