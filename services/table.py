"""What does a person see at the end of ``make up``?"""

import shlex

from services.plan import Plan
from tasks.settings import REPOSITORY


def print_services(plan: Plan, states: dict[str, str]) -> None:
    """Print each service with its address and state, where the passwords are, and what to do next."""
    rows = [("service", "address", "state")]
    rows += [(each.name, each.address, states.get(each.name, "unknown").lower()) for each in plan.processes]
    for setting, name in (("postgres_url", "postgres"), ("redis_url", "redis")):
        if getattr(plan.config, setting):
            rows.insert(1, (name, f"services.{setting}", "not ours"))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    print()
    for name, address, state in rows:
        print(f"{name:<{widths[0]}}  {address:<{widths[1]}}  {state}".rstrip())
    print(f"\n{next_steps(plan)}", flush=True)


def next_steps(plan: Plan) -> str:
    """Tell where the passwords are and which commands follow."""
    state, addresses = plan.state, plan.addresses
    unpause = f"(. {shlex.quote(str(state.environment_file))} && .venv/bin/airflow dags unpause daily_cycle)"
    var = f" VAR={shlex.quote(str(state.var))}" if state.var != REPOSITORY / "var" else ""
    return f"""\
Passwords  {state.secrets_file} (user admin, in Airflow and in MLflow)
Pages      {addresses.airflow_url} (runs), {addresses.mlflow_url} (review)
Days       make backfill FROM=YYYY-MM-DD TO=YYYY-MM-DD{var}, then make status{var}
Nightly    {unpause}; begins with yesterday's run
Stop       make down{var}"""
