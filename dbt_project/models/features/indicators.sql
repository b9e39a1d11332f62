{{ config(materialized='families_view') }}
-- depends_on: {{ ref('closes') }}
-- depends_on: {{ ref('trend') }}
-- depends_on: {{ ref('momentum') }}
-- depends_on: {{ ref('volatility') }}
-- depends_on: {{ ref('volume') }}
-- depends_on: {{ ref('statistics') }}
-- depends_on: {{ ref('candles') }}
-- depends_on: {{ ref('cross_asset') }}
-- depends_on: {{ ref('alpha158') }}
-- depends_on: {{ ref('custom') }}
select 1
