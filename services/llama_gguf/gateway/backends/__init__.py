"""The models behind the gateway: each with its engine, its queue and its rules; and which of them a request is for."""
