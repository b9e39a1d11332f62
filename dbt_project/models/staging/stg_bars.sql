{#
  The run's clean bars as they were traded, and when their session opens, pauses, resumes and closes. Nothing outside
  the range. `shares`, how many one share of the company's beginning has become, is quantlytic_assets'
  market_data/actions/split_factors.py: it never changes with a later split. Prices that a vendor adjusted for splits
  up to the day they were fetched are put back into shares of their session; the volume is too.

  A bar whose price is known to be wrong by a factor has its repair here where that rests on no later bar, and no
  prices otherwise. `ended` is judged by when the bar was fetched, which the archive says, and by no clock: a lake that
  is made anew has the same rows.
#}
{%- set adjusted = run_has_split_factors() %}
with repairs as (
    select * from {{ source('clean', 'repairs') }} where {{ in_run_range() }} and not coalesce(uses_later_bars, true)
),

served as (
    select
        bars.symbol, bars.session, bars.open_time, close_time, available_at,
        coalesce(fetched_at >= close_time, true) as ended,
        {%- for name in ['open', 'high', 'low', 'close', 'volume'] %}
        case when not {{ known_wrong() }} then bars.{{ name }} else repairs.{{ name }} end as {{ name }},
        {%- endfor %}
        {%- if adjusted %}
        greatest(cast(fetched_at as date), bars.session) as fetched_on, adjustment
        {%- else %}
        bars.symbol as listing, 1.0::double as shares
        {%- endif %}
    from (select * from {{ source('clean', 'bars') }} where {{ in_run_range() }}) as bars
    left join repairs using (symbol, session, open_time)
),

{% if adjusted %}
counts as (
    select symbol, since, listing, company, shares from {{ source('clean', 'split_factors') }}
    where dataset = '{{ run_range().dataset }}'
),

{# Counts are those of a day, not of a bar. #}
placed_days as (
    select
        days.*,
        coalesce(counts.listing, days.symbol) as listing,
        coalesce(counts.company, days.symbol) as company,
        coalesce(counts.shares, 1) as shares
    from (select distinct symbol, session, fetched_on, adjustment from served) as days
    asof left join counts on counts.symbol = days.symbol and days.session >= counts.since
),

factors as (
    select
        placed_days.*,
        case when adjustment = 'split' then coalesce(counts.shares, 1) / placed_days.shares else 1 end as factor
    from placed_days
    asof left join counts
        on counts.company = placed_days.company and placed_days.fetched_on >= counts.since
),

bars as (
    select
        served.symbol, served.session, served.open_time, served.close_time, served.ended,
        open * factor as open, high * factor as high, low * factor as low, close * factor as close,
        volume / factor as volume,
        served.available_at, factors.listing, factors.shares
    from served
    join factors
        on factors.symbol = served.symbol and factors.session = served.session
        and factors.fetched_on = served.fetched_on and factors.adjustment = served.adjustment
)
{% else %}
bars as (select * from served)
{% endif %}

select bars.*, sessions.* exclude (session)
from bars
join {{ ref('stg_sessions') }} as sessions on sessions.session = bars.session
