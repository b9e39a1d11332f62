{{ config(materialized='lake_view') }}
{#
  Computed whenever it is asked, so an action that comes late changes nothing that is stored. The same formulas, with
  their reasons, are in quantlytic_assets/market_data/adjustment.py and listings.py.
#}
{%- set as_of -%} coalesce(cast(getvariable('as_of') as date), current_date) {%- endset -%}
{%- set beginning -%} date '0001-01-01' {%- endset %}
with recursive

actions as (
    select
        dataset, symbol, session, kind, value, new_symbol,
        session <= {{ as_of }} and known_on <= {{ as_of }} as known
    from {{ source('clean', 'corporate_actions') }}
),

renames as (
    select dataset, symbol, session, new_symbol from actions where kind = 'rename' and known
),

{# When a company leaves a ticker (and for which), or another one takes it; leaving explains more. #}
endings as (
    select dataset, symbol, session as until, max(next) as next
    from (
        {#- Two companies that take one ticker on the same session have become a third. -#}
        select dataset, symbol, session,
            if(count(*) over (partition by dataset, session, new_symbol) = 1, new_symbol, null) as next
        from renames
        where symbol != new_symbol
        union all
        select dataset, new_symbol, session, null from renames
    )
    group by all
),

stretches as (
    select dataset, symbol, {{ beginning }} as since, min(until) as until, arg_min_null(next, until) as next
    from endings
    group by all
    union all
    select
        dataset, symbol, until,
        lead(until) over ticker as ends,
        lead(next) over ticker
    from endings
    window ticker as (partition by dataset, symbol order by until)
),

{# Each stretch followed from rename to rename: `ticker` is what its company is called in the end. #}
walks as (
    select dataset, symbol, since, symbol as ticker, until, next from stretches
    union all
    select walks.dataset, walks.symbol, walks.since, onward.symbol, onward.until, onward.next
    from walks
    join stretches as onward
        on onward.dataset = walks.dataset and onward.symbol = walks.next and onward.since <= walks.until
        and (onward.until is null or onward.until > walks.until)
),

listings as (
    select
        dataset, symbol, since,
        lead(since) over (partition by dataset, symbol order by since) as until,
        case
            when walks.until is null then ticker else ticker || '@' || strftime(walks.until, '%Y-%m-%d')
        end as instrument
    from walks
    where next is null
),

{# Bars as they are to be used. Read twice with different filters, so it must not be kept as a whole in between. #}
bars as not materialized (
    select
        served.dataset, served.symbol, served.session, served.open_time, served.close_time,
        coalesce(repairs.open, served.open) as open,
        coalesce(repairs.high, served.high) as high,
        coalesce(repairs.low, served.low) as low,
        coalesce(repairs.close, served.close) as close,
        coalesce(repairs.volume, served.volume) as volume,
        repairs.open_time is not null as repaired,
        served.adjustment, served.available_at, served.flags,
        case when served.adjustment = 'split'
            then greatest(cast(served.fetched_at at time zone 'UTC' as date), served.session) else served.session
        end as basis
    from {{ source('clean', 'bars') }} as served
    left join {{ source('clean', 'repairs') }} as repairs
        on repairs.dataset = served.dataset and repairs.symbol = served.symbol
        and repairs.session = served.session and repairs.open_time = served.open_time
    where served.session <= {{ as_of }}
),

placed_actions as (
    select actions.*, coalesce(listings.instrument, actions.symbol) as instrument
    from actions
    left join listings
        on listings.dataset = actions.dataset and listings.symbol = actions.symbol
        and actions.session >= listings.since and (listings.until is null or actions.session < listings.until)
),

{# S(session), and the product of the known ratios after it. #}
splits as (
    select
        dataset, instrument, session,
        product(ratio) over (
            partition by dataset, instrument order by session
        ) as shares,
        coalesce(product(known_ratio) over (
            partition by dataset, instrument order by session rows between 1 following and unbounded following
        ), 1) as later
    from (
        select dataset, instrument, session, product(value) as ratio, product(if(known, value, 1)) as known_ratio
        from placed_actions
        where kind = 'split'
        group by all
        union all
        select distinct dataset, instrument, {{ beginning }}, 1, 1 from placed_actions where kind = 'split'
    )
),

cash as (
    select dataset, instrument, session, value from placed_actions where kind = 'dividend' and known
),

{# Every ticker that a company which ever paid has had. #}
payers as (
    select dataset, instrument as symbol from cash
    union
    select dataset, listings.symbol from listings semi join cash using (dataset, instrument)
),

{# The last close of each of their sessions, and in which shares it is. #}
closes as (
    select last_bars.dataset, coalesce(listings.instrument, last_bars.symbol) as instrument, last_bars.session,
        arg_max(last_bars.close, last_bars.open_time) as close,
        arg_max(last_bars.basis, last_bars.open_time) as basis
    from (
        select
            dataset, symbol, session,
            max(open_time) as open_time, arg_max(close, open_time) as close, arg_max(basis, open_time) as basis
        from bars
        semi join payers using (dataset, symbol)
        where not list_contains(flags, 'out_of_session')
        group by all
    ) as last_bars
    left join listings
        on listings.dataset = last_bars.dataset and listings.symbol = last_bars.symbol
        and last_bars.session >= listings.since and (listings.until is null or last_bars.session < listings.until)
    group by all
),

dividends as (
    select
        dataset, instrument, session,
        coalesce(product(factor) over (
            partition by dataset, instrument order by session rows between 1 following and unbounded following
        ), 1) as later
    from (
        select
            cash.dataset, cash.instrument, cash.session,
            product(
                1 - cash.value / (closes.close * coalesce(then_.shares, 1) / coalesce(now_.shares, 1))
            ) as factor
        from cash
        asof join closes
            on closes.dataset = cash.dataset and closes.instrument = cash.instrument and cash.session > closes.session
        asof left join splits as then_
            on then_.dataset = closes.dataset and then_.instrument = closes.instrument
            and closes.basis >= then_.session
        asof left join splits as now_
            on now_.dataset = cash.dataset and now_.instrument = cash.instrument and cash.session >= now_.session
        group by all
        having factor > 0
        union all
        select distinct dataset, instrument, {{ beginning }}, 1 from cash
    )
),

{# Factors are those of a day, not of a bar; of minutes there are hundreds to each. #}
days as (
    select
        served.dataset, served.symbol, served.session, served.basis,
        coalesce(listings.instrument, served.symbol) as instrument
    from (select distinct dataset, symbol, session, basis from bars) as served
    left join listings
        on listings.dataset = served.dataset and listings.symbol = served.symbol
        and served.session >= listings.since and (listings.until is null or served.session < listings.until)
),

factors as (
    select
        days.*,
        coalesce(served.shares, 1) / coalesce(traded.shares, 1) / coalesce(traded.later, 1) as split_factor,
        coalesce(dividends.later, 1) as dividend_factor
    from days
    asof left join splits as traded
        on traded.dataset = days.dataset and traded.instrument = days.instrument and days.session >= traded.session
    asof left join splits as served
        on served.dataset = days.dataset and served.instrument = days.instrument and days.basis >= served.session
    asof left join dividends
        on dividends.dataset = days.dataset and dividends.instrument = days.instrument
        and days.session >= dividends.session
)

select
    bars.dataset, bars.symbol, factors.instrument, bars.session, bars.open_time, bars.close_time,
    bars.open, bars.high, bars.low, bars.close, bars.volume,
    factors.split_factor,
    factors.dividend_factor,
    bars.open * factors.split_factor as split_open,
    bars.high * factors.split_factor as split_high,
    bars.low * factors.split_factor as split_low,
    bars.close * factors.split_factor as split_close,
    bars.volume / factors.split_factor as split_volume,
    bars.close * factors.split_factor * factors.dividend_factor as adjusted_close,
    bars.adjustment,
    bars.repaired,
    {{ as_of }} as as_of,
    bars.available_at,
    bars.flags
from bars
join factors
    on factors.dataset = bars.dataset and factors.symbol = bars.symbol
    and factors.session = bars.session and factors.basis = bars.basis
