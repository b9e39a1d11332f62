{#
  Python that runs in dbt's process, on its connection: what it calls is in quantlytic_assets.storage.dbt_writes. A
  materialization hands it to `statement(language='python')` itself, where dbt lets nothing else do so. dbt runs it as a
  Python model: `model` gets the connection that has the temporary tables, `materialize` a cursor outside of dbt's own
  transaction.
#}
{% macro python_job(on_cursor) -%}
from quantlytic_assets.storage import dbt_writes


class dbtObj:
    def __init__(self, load_df_function):
        pass


def model(dbt, session):
    return None


def materialize(_, connection):
    {{ on_cursor }}
{%- endmacro %}

{# Statements that define tables or views, in one transaction of the lake. #}
{% macro commit_statements(statements) -%}
    {{ python_job('dbt_writes.commit_statements(connection, ' ~ tojson(statements) ~ ')') }}
{%- endmacro %}

{# The statement that describes a column. #}
{% macro column_comment(target, name, description) -%}
    comment on column {{ target }}.{{ adapter.quote(name) }} is {{ duckdb_escape_comment(description) }}
{%- endmacro %}

{# The model's description, and its columns' where `of_columns`, as statements; only what is described. #}
{% macro comment_statements(target, of_columns) %}
    {%- set statements = [] -%}
    {%- if config.persist_relation_docs() and model.description -%}
        {%- do statements.append(
            'comment on ' ~ target.type ~ ' ' ~ target ~ ' is ' ~ duckdb_escape_comment(model.description)
        ) -%}
    {%- endif -%}
    {%- if config.persist_column_docs() and of_columns -%}
        {%- for column in model.columns.values() if column.description -%}
            {%- do statements.append(column_comment(target, column.name, column.description)) -%}
        {%- endfor -%}
    {%- endif -%}
    {{- return(statements) -}}
{% endmacro %}
