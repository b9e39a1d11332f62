{#
  A lake table of which each run replaces exactly its range of sessions, in one transaction: readers see the old
  rows or the new ones, and so does the next run when this one is killed.

  Columns and their types are the model's yml. Configuration:
    partitioned_by   how the lake splits the table's files
    span             two columns, a row's first and last session (default session, session). The run replaces the rows
                     whose span touches its range, and the model must return all of these
    tail_key         Python models only: rows after the range that the model returns replace those with the same key

  A Python model returns an iterable of polars frames, which are written one after another.
#}
{% materialization range_table, adapter='duckdb', supported_languages=['sql', 'python'] %}
    {%- set target = this.incorporate(type='table') -%}
    {%- set columns = range_table_columns(model) -%}
    {%- do declare_range_table(target, load_cached_relation(this), columns) -%}
    {%- set span = config.get('span', ['session', 'session']) -%}
    {%- set delete_range -%}
        delete from {{ target }} where {{ in_run_range(span[0], span[1]) }}
    {%- endset -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if model['language'] == 'python' -%}
        {%- call statement('main', language='python') -%}
{{ compiled_code }}

{{ write_frames(target, delete_range, config.get('tail_key')) }}
        {%- endcall -%}
    {%- else -%}
        {%- call statement('delete') -%} {{ delete_range }} {%- endcall -%}
        {%- call statement('main') -%}
            insert into {{ target }} by name ({{ compiled_code }})
        {%- endcall -%}
    {%- endif -%}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target]}) }}
{% endmaterialization %}


{% macro range_table_columns(model) %}
    {%- set columns = [] -%}
    {%- for column in model.columns.values() -%}
        {%- if not column.data_type -%}
            {%- do exceptions.raise_compiler_error('no data_type for ' ~ model.name ~ '.' ~ column.name) -%}
        {%- endif -%}
        {%- do columns.append((column.name, column.data_type)) -%}
    {%- endfor -%}
    {{- return(columns) -}}
{% endmacro %}


{# Make the table, or give an older one the columns that have been added to the model since. #}
{% macro declare_range_table(target, existing, columns) %}
    {%- if existing is none -%}
        {%- call statement('declare') -%}
            create table {{ target }} (
                {%- for name, type in columns %}
                {{ adapter.quote(name) }} {{ type }}{{ ',' if not loop.last }}
                {%- endfor %}
            );
            alter table {{ target }} set partitioned by ({{ config.require('partitioned_by') }});
        {%- endcall -%}
        {%- do persist_docs(target, model) -%}
        {%- do adapter.commit() -%}
    {%- else -%}
        {%- set known = adapter.get_columns_in_relation(existing) | map(attribute='name') | list -%}
        {%- for name, type in columns if name not in known -%}
            {%- call statement('add_column') -%}
                alter table {{ target }} add column {{ adapter.quote(name) }} {{ type }}
            {%- endcall -%}
        {%- endfor -%}
        {%- do adapter.commit() -%}
    {%- endif -%}
{% endmacro %}


{#
  The function that dbt-duckdb calls with what a Python model returns and a connection of its own. Frames go through a
  file: DuckDB imports pandas before it looks at a frame, which takes longer than most runs.
#}
{% macro write_frames(target, delete_range, tail_key) -%}
def materialize(frames, connection):
    from pathlib import Path
    from tempfile import TemporaryDirectory

    connection.execute("begin")
    connection.execute("""{{ delete_range }}""")
    with TemporaryDirectory() as directory:
        path = Path(directory) / "frame.parquet"
        for frame in frames:
            frame.write_parquet(path, compression="uncompressed")
    {%- if tail_key %}
        {%- set key -%}
            ({% for name in tail_key %}{{ adapter.quote(name) }}{{ ', ' if not loop.last }}{% endfor %})
        {%- endset %}
            tail = "session >= date '{{ run_range().end }}'"
            (last,) = connection.execute(f"select max(session) from '{path}' where {tail}").fetchall()[0]
            if last is not None:
                connection.execute(
                    f"""delete from {{ target }}
                    where dataset = '{{ run_range().dataset }}' and {tail} and session <= date '{last}'
                    and {{ key }} in (select {{ key }} from '{path}' where {tail})"""
                )
    {%- endif %}
            connection.execute(f"""insert into {{ target }} by name select * from '{path}'""")
    connection.execute("commit")
{%- endmacro %}
