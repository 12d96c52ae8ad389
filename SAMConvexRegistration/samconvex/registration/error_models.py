"""Written by Testing/benchmarks/studies/expected_error.py fit; do not edit."""

FAMILIES: dict = {
    "between patients": {
        "presets": ["ct-inter-patient"],
        "models": [
            {
                "inputs": ["displacement_mm", "mind_flatness", "mind_rank", "mind_shift_mm", "unseen_mm"],
                "intercept": 0.3,
                "scale": 1.3,
                "rises": {
                    "mind_shift_mm": {"knots": [1, 4, 10], "heights": [0.5, 0.8]},
                    "mind_rank": {"knots": [0.05, 0.4, 1], "heights": [0.3, 0.3]},
                    "unseen_mm": {"knots": [0, 30, 100], "heights": [0.7, 0.7]},
                    "mind_flatness": {"knots": [0, 1], "heights": [0.3]},
                    "displacement_mm": {"knots": [2, 15], "heights": [0.4]},
                },
            }
        ],
    },
    "same patient": {
        "presets": ["ct-lung-breathing", "ct-follow-up"],
        "models": [
            {
                "inputs": ["displacement_mm", "mind_flatness", "mind_rank", "mind_shift_mm", "unseen_mm"],
                "intercept": 0.3,
                "scale": 1.3,
                "rises": {
                    "mind_shift_mm": {"knots": [1, 4, 10], "heights": [0.5, 0.8]},
                    "mind_rank": {"knots": [0.05, 0.4, 1], "heights": [0.3, 0.3]},
                    "unseen_mm": {"knots": [0, 30, 100], "heights": [0.7, 0.7]},
                    "mind_flatness": {"knots": [0, 1], "heights": [0.3]},
                    "displacement_mm": {"knots": [2, 15], "heights": [0.4]},
                },
            }
        ],
    },
    "preview": {
        "presets": ["fast-preview"],
        "models": [
            {
                "inputs": ["displacement_mm", "mind_flatness", "mind_rank", "mind_shift_mm", "unseen_mm"],
                "intercept": 0.3,
                "scale": 1.3,
                "rises": {
                    "mind_shift_mm": {"knots": [1, 4, 10], "heights": [0.5, 0.8]},
                    "mind_rank": {"knots": [0.05, 0.4, 1], "heights": [0.3, 0.3]},
                    "unseen_mm": {"knots": [0, 30, 100], "heights": [0.7, 0.7]},
                    "mind_flatness": {"knots": [0, 1], "heights": [0.3]},
                    "displacement_mm": {"knots": [2, 15], "heights": [0.4]},
                },
            }
        ],
    },
    "linear": {
        "presets": [],
        "models": [
            {
                "inputs": ["displacement_mm", "mind_flatness", "mind_rank", "mind_shift_mm", "unseen_mm"],
                "intercept": 0.3,
                "scale": 1.3,
                "rises": {
                    "mind_shift_mm": {"knots": [1, 4, 10], "heights": [0.5, 0.8]},
                    "mind_rank": {"knots": [0.05, 0.4, 1], "heights": [0.3, 0.3]},
                    "unseen_mm": {"knots": [0, 30, 100], "heights": [0.7, 0.7]},
                    "mind_flatness": {"knots": [0, 1], "heights": [0.3]},
                    "displacement_mm": {"knots": [2, 15], "heights": [0.4]},
                },
            }
        ],
    },
}
