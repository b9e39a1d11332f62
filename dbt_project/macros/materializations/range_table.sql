{#
  A lake table of which each run replaces exactly its range of sessions, in one transaction: readers see the old
  rows or the new ones, and so does the next run when this one is killed. Rows are computed before that transaction,
  in a turn of the dataset's.

  Columns and their types are the model's yml; those of the run's features in the family of the model's name come after
  them. Configuration:
    partitioned_by   how the lake splits the table's files
    span             two columns, a row's first and last session (default session, session). The run replaces the rows
                     whose span touches its range, and the model must return all of these
    tail_key         Python models only: rows after the range that the model returns replace those with the same key
    shared_turn      models that come one after the other share a turn, which the first of them takes

  A Python model returns an iterable of polars frames, which are written one after another, each row once: they become
  files of the table. Its `moves`, if it has any, are numbers by which sums after these rows are moved.
#}
{% materialization range_table, adapter='duckdb', supported_languages=['sql', 'python'] %}
    {%- set target = this.incorporate(type='table') -%}
    {%- set columns = range_table_columns(model) -%}
    {#- Nobody else computes the dataset's rows until they are replaced. -#}
    {%- call statement('turn', language='python') -%}
{{ python_job(
    'dbt_writes.take_turn(connection, ' ~ tojson(run_range().dataset) ~ ', shared=' ~ config.get('shared_turn', false) ~ ')'
) }}
    {%- endcall -%}
    {%- set declared = declare_range_table(target, load_cached_relation(this), columns) -%}
    {%- if declared -%}
        {%- call statement('declare', language='python') -%} {{ commit_statements(declared) }} {%- endcall -%}
    {%- endif -%}
    {%- set span = config.get('span', ['session', 'session']) -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- call statement('main', language='python') -%}
{{ compiled_code if model['language'] == 'python' else query_model(compiled_code) }}

{{ replace_range(target, in_run_range(span[0], span[1]), config.get('tail_key', [])) }}
    {%- endcall -%}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target]}) }}
{% endmaterialization %}


{% macro range_table_columns(model) %}
    {%- set columns = [] -%}
    {%- for column in model.columns.values() -%}
        {%- if not column.data_type -%}
            {%- do exceptions.raise_compiler_error('no data_type for ' ~ model.name ~ '.' ~ column.name) -%}
        {%- endif -%}
        {%- do columns.append((column.name, column.data_type, column.description)) -%}
    {%- endfor -%}
    {%- for column in run_range().columns.get(model.name, []) if column.name not in model.columns -%}
        {%- do columns.append((column.name, 'double', column.description)) -%}
    {%- endfor -%}
    {{- return(columns) -}}
{% endmacro %}


{# The statements that make the table, or give an older one the columns that have been added to the model since. #}
{% macro declare_range_table(target, existing, columns) %}
    {%- set statements = [] -%}
    {%- if existing is none -%}
        {#- A run of another dataset may have made it since dbt looked. -#}
        {%- set definition -%}
            create table if not exists {{ target }} (
                {%- for name, type, _ in columns %}
                {{ adapter.quote(name) }} {{ type }}{{ ',' if not loop.last }}
                {%- endfor %}
            )
        {%- endset -%}
        {%- do statements.extend([
            definition,
            'alter table ' ~ target ~ ' set partitioned by (' ~ config.require('partitioned_by') ~ ')'
        ]) -%}
        {%- do statements.extend(comment_statements(target, of_columns=true)) -%}
        {%- for name, _, description in columns if name not in model.columns -%}
            {%- do statements.append(column_comment(target, name, description)) -%}
        {%- endfor -%}
    {%- else -%}
        {#- Not by the adapter, which would begin a transaction: others see nothing of what hooks make in it. -#}
        {%- set known = run_query('select column_name from (describe ' ~ target ~ ')').columns[0].values() -%}
        {%- for name, type, description in columns if name not in known -%}
            {%- do statements.append(
                'alter table ' ~ target ~ ' add column if not exists ' ~ adapter.quote(name) ~ ' ' ~ type
            ) -%}
            {%- do statements.append(column_comment(target, name, description)) -%}
        {%- endfor -%}
    {%- endif -%}
    {{- return(statements) -}}
{% endmacro %}


{# A SQL model as a Python one: its rows are staged by the connection that has the temporary tables. #}
{% macro query_model(query) -%}
class dbtObj:
    def __init__(self, load_df_function):
        pass


def model(dbt, session):
    def stage(directory):
        dbt_writes.stage_query(session, directory, {{ tojson(query) }})

    return stage
{%- endmacro %}


{# The function that dbt-duckdb calls with what the model returns and a cursor of its own. #}
{% macro replace_range(target, in_range, tail_key) -%}
{%- set table = target.schema ~ '.' ~ target.identifier -%}
from datetime import date

from quantlytic_assets.storage import dbt_writes


def materialize(rows, connection):
{%- if model['language'] == 'python' %}
    dbt_writes.replace_by_frames(
        connection,
        {{ tojson(table) }},
        {{ tojson(in_range) }},
        rows,
        partitioned_by={{ tojson(config.require('partitioned_by').split(', ')) }},
        tail_of={{ tojson(run_range().dataset) }},
        tail_since=date.fromisoformat({{ tojson(run_range().end) }}),
        tail_key={{ tojson(quoted_names(tail_key)) }},
    )
{%- else %}
    dbt_writes.replace_by_query(connection, {{ tojson(table) }}, {{ tojson(in_range) }}, rows)
{%- endif %}
{%- endmacro %}


{% macro quoted_names(names) %}
    {%- set quoted = [] -%}
    {%- for name in names -%}
        {%- do quoted.append(adapter.quote(name)) -%}
    {%- endfor -%}
    {{- return(quoted) -}}
{% endmacro %}
