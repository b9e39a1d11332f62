{#
  Tests that look at the run's range only, so that their cost does not grow with the table.
  `session` names the column that says which session a row belongs to.
#}

{% test unique_key(model, columns, session='session') %}
select {{ columns | join(', ') }}, count(*) as rows_found
from {{ model }}
where {{ in_run_range(session, session) }}
group by all
having count(*) > 1
{% endtest %}

{% test always_present(model, columns, session='session') %}
select *
from {{ model }}
where {{ in_run_range(session, session) }}
    and ({% for column in columns %}{{ column }} is null{{ ' or ' if not loop.last }}{% endfor %})
{% endtest %}

{% test holds(model, condition, session='session') %}
select *
from {{ model }}
where {{ in_run_range(session, session) }} and not ({{ condition }})
{% endtest %}
