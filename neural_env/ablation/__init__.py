"""What each part of the recipe is worth: studies whose arms differ in one thing, trained and scored alike."""
