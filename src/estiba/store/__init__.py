"""SQLite: records, intents and event rows, written by one thread in short transactions."""

from estiba.store.database import Intent, Record, Store, Transaction
from estiba.store.events import EventBus, Subscription

__all__ = ["EventBus", "Intent", "Record", "Store", "Subscription", "Transaction"]
