"""Plans: an agent's plan becomes subtasks, and a manager hands them to executors.

The way through: `markdown.parse_plan` reads text into a `model.Plan`,
`decompose.decompose` finds the dependencies, `state.advance` decides what
happens next, `manager.Manager` makes it happen, `report.render` shows it.
Only the manager has threads and a clock; nothing here imports Ray.
"""
