{#
  Which bars may be used by indicators and labels. `usable_bars` of quantlytic_assets/services/accounts.py says the same
  for fills and marks.
#}

{#
  SQL condition on rows of clean.bars: a price is known to be wrong by a factor. The flags are DEFECTS of
  quantlytic_assets/market_data/quality/defects.py; a test compares them.
#}
{% macro known_wrong() -%}
    list_has_any(coalesce(flags, []), ['times_100', 'missing_split', 'doubled_split', 'pre_split_print'])
{%- endmacro %}

{# SQL condition on rows of features.bars: it has a price, and nothing is missing unless the dataset does not mind. #}
{% macro usable_bar() -%}
    (close is not null{{ ' and complete' if run_range().incomplete != 'keep' }})
{%- endmacro %}
