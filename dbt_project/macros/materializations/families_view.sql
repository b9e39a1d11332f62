{#
  The view of closes and all families of features. Which columns there are is known when it is made, to the lake alone:
  each dataset's runs add those that it declares.
#}
{% materialization families_view, adapter='duckdb' %}
    {%- set target = this.incorporate(type='view') -%}
    {{ run_hooks(pre_hooks) }}
    {%- set comments = comment_statements(target, of_columns=false) -%}
    {%- call statement('main', language='python') -%}
{{ python_job('dbt_writes.show_families(connection, ' ~ tojson(target | string) ~ ', ' ~ tojson(comments) ~ ')') }}
    {%- endcall -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target]}) }}
{% endmaterialization %}
