"""
Which items does each item lead to? The Swing index (PI2I Eq. 2-4).

    s(i, j) = sum over u, v in Ui ∩ Uj of  w_u * w_v / (alpha + |Iu ∩ Iv|),   w_u = 1 / sqrt(|Iu|)

Ui are the users who clicked i, Iu the distinct items that u clicked. The sum runs over ordered pairs, so
every pair of users counts twice. ``u = v`` is no swing, which needs two users, and is left out unless
``include_self_pairs`` reads Eq. 3 literally. ``w_u`` always uses the full Iu; a click that
``max_items_per_user`` drops leaves Iu in the intersection, and Ui, everywhere else. Without a cap the
index is exact; the same clicks in any order, at any number of threads, give the same bytes.

`build_i2i_table` does it all. Its steps can be taken apart, to spread the triggers over machines or to
write the table as it comes: `index_clicks`, `plan_blocks`, then `block_rows` for each block of triggers.
"""

from models.swing.build import I2IBlocks, build_i2i_table, iter_i2i_blocks
from models.swing.click_index import ClickIndex, index_clicks
from models.swing.clicks import BadClicks
from models.swing.config import SwingConfig
from models.swing.memory import BudgetTooSmall
from models.swing.plan import TriggerBlock, plan_blocks
from models.swing.report import SwingReport, TargetCounts, swing_report
from models.swing.rows import I2I_SCHEMA, block_rows

__all__ = [
    "I2I_SCHEMA",
    "BadClicks",
    "BudgetTooSmall",
    "ClickIndex",
    "I2IBlocks",
    "SwingConfig",
    "SwingReport",
    "TargetCounts",
    "TriggerBlock",
    "block_rows",
    "build_i2i_table",
    "index_clicks",
    "iter_i2i_blocks",
    "plan_blocks",
    "swing_report",
]
