{{ config(materialized='range_table') }}
{#
  Buckets start at the session's open and again where a lunch break ends, as the market's own bars do; bars before the
  open or after the close have buckets of their own that end or start there. 1d is the session: only its own hours.
  All times are microseconds until the last select. A session has one listing a symbol and one count of its shares.

  `complete` asks no clock. A bucket that has not ended lacks its last native bar, which neither the archive has nor
  coverage calls untraded before its time. So the same bars and holes give the same rows, whenever they are made.
#}
{%- set run = run_range() -%}
{%- set native = interval_seconds(run.native) * 1000000 -%}
{%- set coarser = [] -%}
{%- for interval in run.intervals if interval != run.native -%}
    {%- if interval_seconds(interval) < interval_seconds(run.native) -%}
        {%- do exceptions.raise_compiler_error(interval ~ ' bars cannot be made of ' ~ run.native ~ ' bars') -%}
    {%- endif -%}
    {%- do coarser.append(interval) -%}
{%- endfor -%}

{% if run.native in run.intervals %}
select
    '{{ run.dataset }}' as dataset, symbol, session, '{{ run.native }}' as "interval", open_time, close_time,
    open, high, low, close, volume, available_at, ended and close is not null as complete, listing, shares
from {{ ref('stg_bars') }}
{{ 'union all' if coarser }}
{% endif %}

{% if not run.intervals %}
select dataset, symbol, session from {{ source('clean', 'bars') }} where false
{% endif %}

{% if coarser %}
select
    '{{ run.dataset }}' as dataset, symbol, session, "interval",
    make_timestamptz(bucket_start) as open_time,
    make_timestamptz(bucket_end) as close_time,
    open, high, low, close, volume,
    make_timestamptz(bucket_end + delay) as available_at,
    accounted = expected as complete,
    listing, shares
from (
    select
        symbol, session, "interval", bucket_start, bucket_end, expected,
        any_value(listing) as listing,
        any_value(shares) as shares,
        arg_min(open, opens) as open,
        max(high) as high,
        min(low) as low,
        arg_max(close, opens) as close,
        sum(volume) as volume,
        max(delay) as delay,
        count_if(untraded or (ended and close is not null)) as accounted
    from (
        {# How many native bars a bucket holds when none is missing. #}
        select *,
            case when "interval" = '1d' and break_starts is not null
                then ceil((break_starts - bucket_start) / {{ native }}) + ceil((bucket_end - break_ends) / {{ native }})
                else ceil((bucket_end - bucket_start) / {{ native }})
            end as expected
        from (
            select *,
                case when "interval" = '1d' then session_opens
                    else anchor + cast(floor((opens - anchor) / step) as bigint) * step
                end as bucket_start,
                case when "interval" = '1d' then session_closes
                    else least(anchor + (cast(floor((opens - anchor) / step) as bigint) + 1) * step, stretch_end)
                end as bucket_end
            from (
                select *,
                    case
                        when opens < session_opens then session_opens
                        when opens >= session_closes then session_closes
                        when opens >= break_ends then break_ends
                        when opens >= break_starts then break_starts
                        else session_opens
                    end as anchor,
                    case
                        when opens < session_opens then session_opens
                        when opens >= session_closes then null
                        when opens >= break_ends then session_closes
                        when opens >= break_starts then break_ends
                        else coalesce(break_starts, session_closes)
                    end as stretch_end
                from (
                    select
                        *, epoch_us(open_time) as opens, epoch_us(available_at) - epoch_us(close_time) as delay,
                        false as untraded
                    from {{ ref('stg_bars') }}
                    union all by name
                    select *, true as untraded from {{ ref('stg_untraded') }}
                )
            )
            cross join (values
                {%- for interval in coarser %}
                ('{{ interval }}', {{ interval_seconds(interval) * 1000000 }}){{ ',' if not loop.last }}
                {%- endfor %}
            ) as intervals("interval", step)
            where "interval" != '1d' or (opens >= session_opens and opens < session_closes)
        )
    )
    group by symbol, session, "interval", bucket_start, bucket_end, expected
    having not bool_and(untraded)
)
{% endif %}
{% if run.intervals %}
order by "interval", symbol, open_time
{% endif %}
