"""What trainings draw from: cases, images, landmarks, views and augmentation."""
