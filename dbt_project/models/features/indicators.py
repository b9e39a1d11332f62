# Reads the range and what surrounds it, hands it to quantlytic_assets.features, and returns the rows.
# The tables it reads are made by the model's pre-hooks: see macros/surroundings.sql and macros/indicator_inputs.sql.

from quantlytic_assets.services.features import computed_frames


def model(dbt, session):
    dbt.ref("bars")
    return computed_frames(session)
