"""What do items cost, as the cross features compare it?"""

import numpy as np
import pyarrow as pa


def log_prices(items: pa.Table) -> dict[int, float]:
    """
    Give log(1 + price) by item id; items without a price, or with one that is not finite, are left out.

    Args:
        items: item_id and price; without the column no item has one.
    """
    if "price" not in items.column_names:
        return {}
    prices = items["price"].to_numpy().astype(np.float64)
    has_price = np.isfinite(prices) & (prices >= 0)
    ids = items["item_id"].to_numpy()[has_price].tolist()
    return dict(zip(ids, np.log1p(prices[has_price]).tolist(), strict=True))
