QDQRegistry: dict[str, type]
QLinearOpsRegistry: dict[str, type]
