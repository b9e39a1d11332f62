# What is computed here is declared in quantlytic_assets/features; which rows, in macros/bars_to_compute.sql.

from quantlytic_assets.services.features import FamilyRows


def model(dbt, session):
    dbt.ref("closes")
    return FamilyRows(session, "momentum")
