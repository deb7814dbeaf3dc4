"""The enrolment service: gives boards their certificates and tells the broker who is out."""
