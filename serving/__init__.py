"""Version to traffic: gateway, routing, engines, feedback API, rollout controller."""
