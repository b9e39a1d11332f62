{#
  A view of the lake, made anew by each run in one statement: readers see the old definition or the new one. dbt's own
  view materialization goes by a second name and a rename. Columns of a DuckLake view can't have comments.
#}
{% materialization lake_view, adapter='duckdb' %}
    {%- set target = this.incorporate(type='view') -%}
    {{ run_hooks(pre_hooks) }}
    {%- set definition = 'create or replace view ' ~ target ~ ' as ' ~ sql -%}
    {%- call statement('main', language='python') -%}
        {{ commit_statements([definition] + comment_statements(target, of_columns=false)) }}
    {%- endcall -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target]}) }}
{% endmaterialization %}
